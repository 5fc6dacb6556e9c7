"""What each page of the review shows: plain dicts made of the project's tables, and the lists behind its sheets of thumbnails."""
