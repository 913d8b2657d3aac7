"""Reads models as Hugging Face publishes them: a config.json, and what lies beside it, as a catalog entry."""

from hermes_flow.config.hugging_face.read import entry_of as entry_of
from hermes_flow.config.hugging_face.read import is_hugging_face as is_hugging_face
