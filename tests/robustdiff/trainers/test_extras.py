import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "module"), [("lightning", "lightning.pytorch"), ("transformers", "transformers")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"robustdiff.trainers.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'robustdiff\[{name}\]'$"):
        importlib.import_module(f"robustdiff.trainers.{name}")
