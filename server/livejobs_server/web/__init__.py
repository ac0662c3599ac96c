"""The pages the server serves to browsers."""
