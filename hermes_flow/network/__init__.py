"""The network between clients: its topology, its links, and transfers that share them."""
