"""What venues say in public: their raw messages, read by pure functions, and their order books, kept by their own rules.

The live path and a replay of recordings read through the very same functions. ccxt's own handlers were measured and left aside: they keep
what they read in caches instead of returning it, drop a book that nobody subscribed to, give a trade of Binance another id when it is
fetched over REST than when it is streamed, and know only what a venue sends today, not what recordings hold. They serve as oracle in tests.
"""
