"""What comes before an installation: a publisher's releases, and a hospital's first files."""
