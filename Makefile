# The same as the scripts in script/, for habit.
.PHONY: up demo test bench check lock package
up demo test bench check lock package:
	@script/$@ $(ARGS)
