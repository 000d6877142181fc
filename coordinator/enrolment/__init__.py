"""Who becomes a site and who ceases to be one: invitations, requests, the register and the authority behind it."""
