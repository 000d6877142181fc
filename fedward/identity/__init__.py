"""Who is who: names of updates, keys, certificates, signatures and seals. The only home of cryptography."""
