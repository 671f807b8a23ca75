#!/bin/bash
# Install into a fresh prefix, and build and run there the program that opens the
# public header: shared and static, as C and as C++.
#
#     tests/install/run.sh [MAKE VARIABLE...]
set -u
cd "$(dirname "$0")/../.."
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
prefix=$dir/usr
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
pass=0 fail=0 skip=0

check() { # name, words to find, command
	local name=$1 words=$2 out
	shift 2
	if out=$("$@" 2>&1 </dev/null) && grep -q -- "$words" <<<"$out"; then
		pass=$((pass + 1))
	else
		fail=$((fail + 1))
		printf 'FAILED %s: wanted "%s" in:\n%s\n' "$name" "$words" "$out"
	fi
}

check install '' make -s install PREFIX="$prefix" "$@"
check command "^arcvmm $(cat VERSION)" "$prefix/bin/arcvmm" version
check version "^$(cat VERSION)" pkg-config --modversion arcvmm
check man-page '^.TH ARCVMM 1' cat "$prefix/share/man/man1/arcvmm.1"
check completion '_arcvmm' bash -n -v \
	"$prefix/share/bash-completion/completions/arcvmm"

# The program in the header's first comment, with a real kernel and root.
if { read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh 6.1); then
	tests/boot/prepare.sh "$dir/roots" >/dev/null
	{
		echo '#include <arcvmm/arcvmm.h>'
		echo '#include <stdio.h>'
		echo 'int main(void) {'
		sed -n '/struct arcvmm_config \*cfg/,/arcvmm_config_free/s/^ \*//p' \
			"$prefix/include/arcvmm/arcvmm.h" |
			sed "s|\"/boot/vmlinuz\"|\"$kernel\"|
				s|\"/srv/rootfs\"|\"$dir/roots/root\"|"
		echo 'return res.status; }'
	} >"$dir/example.c"
	check modules-beside-kernel '' test -d "$modules"
	check compile '' gcc -Wall -Wextra -Werror -o "$dir/shared" \
		"$dir/example.c" $(pkg-config --cflags --libs arcvmm)
	check shared '^Linux .*x86_64' "$dir/shared"
	check compile-static '' gcc -static -o "$dir/static" "$dir/example.c" \
		$(pkg-config --static --cflags --libs arcvmm)
	check static '^Linux .*x86_64' "$dir/static"
else
	for name in compile shared compile-static static; do
		echo "SKIP: $name: no stock kernel could be fetched"
		skip=$((skip + 1))
	done
fi
echo '#include <arcvmm/arcvmm.h>
int main() { return !*arcvmm_version(); }' >"$dir/plus.cc"
check c++ '' g++ -Wall -Wextra -Werror -o "$dir/plus" "$dir/plus.cc" \
	$(pkg-config --cflags --libs arcvmm)

echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
