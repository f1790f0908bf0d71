from robustdiff.progress import Report


class Recorder(Report):
    def __init__(self):
        self.seen = []

    def progress(self, task, done, total, note=""):
        self.seen.append((task, done, total, note))


def test_a_stage_is_the_progress_of_one_task():
    report = Recorder()
    stage = report.stage("sampling")
    stage(3, 8)
    assert report.seen == [("sampling", 3, 8, "")]
    Report().stage("shows nothing")(1, 2)
