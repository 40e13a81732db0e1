"""What the folder of a decoder that reads pictures says of them, and of the messages in which it reads texts."""
