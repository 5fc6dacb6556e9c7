"""The review page: a local server that shows a project and writes the user's decisions to edits/. See docs/review.md."""
