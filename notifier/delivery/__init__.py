"""Delivery: from stored messages to the subscribers of a company, and one session per connection."""
