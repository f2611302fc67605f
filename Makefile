# The same as the scripts in script/, for habit.
.PHONY: up demo test check bench lock
up demo test check bench lock:
	@script/$@ $(ARGS)
