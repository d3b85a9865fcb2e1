"""What stages will need and what they took; budgets, forecasts, and the simulator."""
