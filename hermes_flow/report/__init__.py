"""From tables to what people read: console text, HTML, trace events."""
