"""Access: identifies users by tokens, and decides which companies they may see."""
