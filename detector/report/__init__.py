"""An evaluation as text, as JSON, and as a page of HTML with images; a training as a page."""
