"""What strangers, thieves, vandals and rogue banks send, and that nothing comes of it."""
