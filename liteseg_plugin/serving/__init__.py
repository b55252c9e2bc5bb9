"""An exported model behind a web page."""
