"""How data moves between clients: topology, links, transfers that share them."""
