"""How many servers a load needs: a simulation of servers on a virtual clock, and plans made with it."""
