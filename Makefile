# zdm_ext: PGXS build. `make PG_CONFIG=/path/to/pg_config` chooses the server.
EXTENSION = zdm_ext
MODULE_big = zdm_ext
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" zdm_ext.control)

SOURCES = $(sort $(wildcard src/*.cpp src/*/*.cpp))
OBJS = $(SOURCES:.cpp=.o)

# What CREATE EXTENSION runs: the rooms' SQL, lowest floor first.
ROOM_SQL = src/jobs/jobs.sql src/jobs/views.sql src/backfill/backfill.sql
DATA_built = zdm_ext--$(EXTVERSION).sql

REGRESS = $(sort $(basename $(notdir $(wildcard sql/*.sql))))
REGRESS_OPTS = --load-extension=zdm_ext
ISOLATION = $(sort $(basename $(notdir $(wildcard test/isolation/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=zdm_ext

EXTRA_CLEAN = zdm_ext--*.sql build $(SOURCES:.cpp=.d) results output_iso regression.diffs regression.out

PG_CONFIG ?= pg_config
# JIT inlining of C++ frames is of no use here, and the bitcode rule does not see PG_CXXFLAGS.
override with_llvm = no
PG_CPPFLAGS = -Isrc
PG_CXXFLAGS = -std=c++20 -fvisibility=hidden -isystem $(INCLUDEDIR_SERVER) -Wall -Wextra -Werror \
	-DFMT_HEADER_ONLY -DZDM_VERSION='"$(EXTVERSION)"' -MMD -MP $(SANITIZE)
INCLUDEDIR_SERVER := $(shell $(PG_CONFIG) --includedir-server)
SHLIB_LINK += -lstdc++ $(SANITIZE)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

-include $(SOURCES:.cpp=.d)

zdm_ext--$(EXTVERSION).sql: $(ROOM_SQL) zdm_ext.control
	cat $(ROOM_SQL) > $@

# --- tests that need no server -------------------------------------------------------------------
# Unit tests see src/core alone: no server header is on their include path.
UNIT_SOURCES = $(wildcard test/unit/*.cpp) $(wildcard src/core/*.cpp)
build/unit: $(UNIT_SOURCES) $(wildcard src/core/*.hpp)
	@mkdir -p build
	$(CXX) -std=c++20 -O1 -g -Wall -Wextra -Werror -DFMT_HEADER_ONLY $(SANITIZE) -Isrc $(UNIT_SOURCES) -o $@ \
		-lgtest -lgtest_main -lpthread

.PHONY: unit client boundary
unit: build/unit
	./build/unit

# --- clients: an application under load, with an oracle ------------------------------------------
CLIENTS = $(patsubst test/client/%.cpp,build/client/%,$(wildcard test/client/*.cpp))
client: $(CLIENTS)
build/client/%: test/client/%.cpp $(wildcard test/client/*.hpp)
	@mkdir -p build/client
	$(CXX) -std=c++20 -O1 -g -Wall -Wextra -Werror -DFMT_HEADER_ONLY -isystem $(shell $(PG_CONFIG) --includedir) \
		$< -o $@ -L$(shell $(PG_CONFIG) --libdir) -lpq -lpthread

# --- where C++ and PostgreSQL meet: a module of its own around src/pg -----------------------------
boundary:
	$(MAKE) -C test/boundary PG_CONFIG=$(PG_CONFIG) SANITIZE="$(SANITIZE)"
