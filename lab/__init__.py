"""What every wing's runs need, and nothing of any wing."""
