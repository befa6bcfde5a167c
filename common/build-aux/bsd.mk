# Read by BSD make only: see environment.mk.
.error "these Makefiles need GNU make: install it and type gmake"
