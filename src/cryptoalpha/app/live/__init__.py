"""Live trading at a venue: its gates and session, and how a live run is told and checked. Nothing here serves paper trading.

What paper trading uses too stays beside this package: `trade_session` (the verb's session), `trade`, `alarms`, `live_monitor` (live bars
are watched on paper as well), `venues`.
"""
