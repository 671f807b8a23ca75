#!/bin/sh
# Python and OpenSSL check themselves and compute values: debian-checks.sh
# Lines of "value" must be the same on any CPU; the last line says "all well".
set -eu
export LC_ALL=C HOME=/tmp
cd /tmp
python3 - <<'PY'
import bz2, decimal, fractions, hashlib, json, lzma, math, random, struct, zlib

def value(name, data):
    if not isinstance(data, bytes):
        data = repr(data).encode()
    print("value python", name, hashlib.sha256(data).hexdigest()[:32])

r = random.Random(12)
blob = bytes(r.choices(range(256), weights=range(1, 257), k=300000))
text = " ".join(str(r.random()) for _ in range(20000)).encode()
for name in sorted(hashlib.algorithms_guaranteed):
    h = hashlib.new(name, blob)
    value(name, h.digest(64) if name.startswith("shake") else h.digest())
for name, m in ("zlib", zlib), ("bz2", bz2), ("lzma", lzma):
    packed = m.compress(text)
    assert m.decompress(packed) == text, name
    value(name, packed)
value("crc32", (zlib.crc32(blob), zlib.adler32(blob)))
value("integers", pow(3, 12345, 2**521 - 1) * math.factorial(300) // 7**200)
value("floats", [f(1 + k / 7) for k in range(500) for f in (
    math.sqrt, math.sin, math.exp, math.log, math.gamma, math.atan, math.cbrt)])
value("floor", [(math.fmod(k * .7, .3), k * .7 // .3, round(k / 3, 5))
                for k in range(-500, 500)])
decimal.getcontext().prec = 80
value("decimal", [decimal.Decimal(k).sqrt().ln() for k in range(2, 60)])
value("fractions", sum(fractions.Fraction(1, k) for k in range(1, 300)))
value("struct", b"".join(struct.pack(">dfqH", k / 3, k / 7, -k, k)
                         for k in range(2000)))
value("json", json.dumps(json.loads(json.dumps(
    {str(k): [k / 9, {"x": "é" * k}] for k in range(60)}))))
value("sort", sorted(r.random() for _ in range(20000)))
PY
seq 1 100000 >data
for digest in md5 sha1 sha256 sha512 sha3-256 blake2b512 ripemd160 sm3; do
	echo "value openssl $(openssl dgst -$digest data 2>&1)"
done
for cipher in aes-128-cbc aes-256-ctr aes-256-ofb camellia-256-cbc \
	aria-128-cbc chacha20 des-ede3-cbc sm4-cbc; do
	openssl enc -$cipher -pbkdf2 -iter 2000 -S 0102030405060708 -k secret \
		-in data -out sealed
	openssl enc -d -$cipher -pbkdf2 -iter 2000 -S 0102030405060708 \
		-k secret -in sealed -out opened
	cmp data opened
	echo "value openssl $cipher $(sha256sum <sealed)"
done
for key in "RSA -pkeyopt rsa_keygen_bits:2048" \
	"EC -pkeyopt ec_paramgen_curve:P-256" ED25519 X448; do
	openssl genpkey -algorithm $key -out key 2>/dev/null
	openssl pkey -in key -pubout -out public
	openssl pkey -in key -check -noout >/dev/null
	case $key in
	RSA* | EC*)
		openssl dgst -sha256 -sign key -out sig data
		openssl dgst -sha256 -verify public -signature sig data
		;;
	ED25519)
		openssl pkeyutl -sign -inkey key -rawin -in sealed -out sig
		openssl pkeyutl -verify -pubin -inkey public -rawin -in sealed \
			-sigfile sig
		;;
	esac
done
openssl prime 170141183460469231731687303715884105727
python3 -m test -q test_math test_struct test_heapq test_bisect \
	test_float >tests 2>&1 ||
	{ cat tests; exit 1; }
tail -n 2 tests
echo "all well"
