package main

// forbidCoreDumps has nothing to do: Windows writes no dump unless it was told to.
func forbidCoreDumps() {}
