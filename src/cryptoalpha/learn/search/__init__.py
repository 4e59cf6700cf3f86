"""One planner for everything that must decide: exact scenario trees where the action only moves a position, tree search elsewhere."""
