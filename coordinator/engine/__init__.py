"""Pure aggregation: which weight an update has, when a version is made, and how updates are folded into it."""
