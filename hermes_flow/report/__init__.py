"""Output for people: console text, HTML and SVG."""
