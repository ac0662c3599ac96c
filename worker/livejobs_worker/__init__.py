"""The worker to run: a Celery app, its beat schedule and the built-in tasks."""
