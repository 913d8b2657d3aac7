"""Deployments as their tools write them: command lines of engines, Docker Compose, Kubernetes, values of llm-d."""

from hermes_flow.deployments.imported import Imported as Imported
from hermes_flow.deployments.imported import read_deployment as read_deployment
