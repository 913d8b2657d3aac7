"""Random and hostile input for hermes_flow, with the promises that every answer has to keep."""
