# The same as the scripts in script/, for habit.
.PHONY: up demo test check lock
up demo test check lock:
	@script/$@ $(ARGS)
