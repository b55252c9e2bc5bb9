"""Exported models behind a web page, and behind HTTP and gRPC."""
