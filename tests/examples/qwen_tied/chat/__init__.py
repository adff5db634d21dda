"""A downstream project that chats with a small model spread over many cards."""
