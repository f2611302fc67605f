# The same as the scripts in script/, for habit.
.PHONY: up demo test check lock package
up demo test check lock package:
	@script/$@ $(ARGS)
