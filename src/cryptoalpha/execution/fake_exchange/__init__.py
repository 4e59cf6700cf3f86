"""A venue on loopback that speaks Binance and fails on request."""
