"""A person's decisions about suspect labels: their record, and the web page to make them."""
