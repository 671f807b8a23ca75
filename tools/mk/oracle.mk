# The host CPU judges the software CPU (tests/oracle).

oracle_src := $(call find,tests/oracle)
oracle_bin := $(B)/tests/oracle/oracle
$(call obj,$(oracle_src)): CPPFLAGS += -Itests/oracle
$(oracle_bin): $(call obj,$(oracle_src)) $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

#: oracle       the program that compares the software CPU with the host's
#: oracle-check its corpus, its privileged tables, ORACLE_CASES cases, and more
#:              until each row of the opcode tables came to its end
.PHONY: oracle oracle-check
ORACLE_CASES ?= 1000000
ORACLE_SEED  ?= 1
oracle: $(oracle_bin)
oracle-check: $(oracle_bin)
	$(oracle_bin) --coverage --corpus tests/oracle/corpus.txt \
		--seed $(ORACLE_SEED) --cases $(ORACLE_CASES)

-include $(patsubst %.o,%.d,$(call obj,$(oracle_src)))
