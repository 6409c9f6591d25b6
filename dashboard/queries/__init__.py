"""The read side: what pages and API show, each in a fixed number of queries; lists are paged by key, not offset."""
