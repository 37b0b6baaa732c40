#!/usr/bin/env bash
#
# make-grid-pki.sh - build a throw-away grid security fabric for tests.
#
#   make-grid-pki.sh [options] OUTDIR
#
#   --force            build into OUTDIR although it is not empty; only the
#                      sub-trees this script owns are replaced
#   --renew-proxies    OUTDIR holds an earlier result: keep CAs, users and
#                      hosts, make only proxies/ afresh (proxies are short-lived)
#   --key rsa|ec       key type of users, hosts and plain proxies (default ec =
#                      P-256; rsa = RSA-2048, which is what grids deploy).
#                      CAs, VOMS servers and proxies with an AC have RSA-2048
#                      keys either way, for the sake of voms-proxy-fake: its
#                      proxy keys are RSA only, it labels every AC signature
#                      sha1WithRSAEncryption whatever the signing key is, and it
#                      signs proxies with SHA-1 when the user's certificate was
#                      itself signed with ECDSA.
#   --days N           lifetime of certificates and of the CRL (default 30)
#   --hours N          lifetime of proxies and of their ACs     (default 48)
#   --no-voms          skip every credential that needs voms-proxy-fake
#   -q, --quiet        say nothing on success
#   -h, --help         this text
#
# Needs: bash, openssl >= 1.1.1 and, unless --no-voms, voms-proxy-fake (Debian
# package voms-clients).  Takes a few seconds.
#
# Exit codes: 0 done; 1 something failed on the way; 2 wrong usage;
#             3 a tool is missing; 4 OUTDIR is not empty and --force not given.
#
# All the keys made here are unencrypted and good for nothing but tests.

set -euo pipefail
umask 077                     # private by default; public parts are opened up at the end

prog=${0##*/}
say()  { [ "$quiet" = 1 ] || printf '%s\n' "$*"; }
die()  { local rc=$1; shift; printf '%s: %s\n' "$prog" "$*" >&2; exit "$rc"; }
# the usage text is the comment block at the top of this file
usage() { awk 'NR > 2 && !/^#/ { exit } NR > 2 { sub(/^# ?/, ""); print }' "$0"; }

# ---------------------------------------------------------------- arguments
force=0 renew=0 keytype=ec days=30 hours=48 voms=1 quiet=0 out=
while [ $# -gt 0 ]; do
  case $1 in
    --force)         force=1 ;;
    --renew-proxies) renew=1 ;;
    --key)           [ $# -ge 2 ] || die 2 "--key wants rsa or ec";      keytype=$2; shift ;;
    --days)          [ $# -ge 2 ] || die 2 "--days wants a number";      days=$2;    shift ;;
    --hours)         [ $# -ge 2 ] || die 2 "--hours wants a number";     hours=$2;   shift ;;
    --no-voms)       voms=0 ;;
    -q|--quiet)      quiet=1 ;;
    -h|--help)       usage; exit 0 ;;
    -*)              die 2 "unknown option $1 (try --help)" ;;
    *)               [ -z "$out" ] || die 2 "more than one OUTDIR given"; out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || die 2 "usage: $prog [options] OUTDIR (try --help)"
case $keytype in rsa|ec) ;; *) die 2 "--key must be rsa or ec, not '$keytype'" ;; esac
for n in "$days" "$hours"; do
  case $n in ''|*[!0-9]*|0) die 2 "'$n' is not a positive whole number" ;; esac
done

# -------------------------------------------------------------------- tools
command -v openssl >/dev/null 2>&1 ||
  die 3 "openssl not found; install it first (Debian: apt-get install openssl)"
if [ "$voms" = 1 ]; then
  command -v voms-proxy-fake >/dev/null 2>&1 ||
    die 3 "voms-proxy-fake not found; install it (Debian: apt-get install voms-clients) or pass --no-voms"
fi

# ------------------------------------------------------------------- OUTDIR
owned="ca certificates hosts users voms vomsdir proxies work names.txt vomses"
if [ "$renew" = 1 ]; then
  [ -f "$out/names.txt" ] && [ -d "$out/users" ] ||
    die 2 "--renew-proxies: $out does not hold an earlier result of this script"
else
  mkdir -p "$out"
  if [ -n "$(ls -A "$out")" ]; then
    [ "$force" = 1 ] || die 4 "$out is not empty; pass --force to rebuild it"
    for o in $owned; do rm -rf "${out:?}/$o"; done
  fi
fi
out=$(cd "$out" && pwd)       # voms-proxy-fake prefers absolute names
work=$out/work
mkdir -p "$work"
trap 'rc=$?; [ $rc -eq 0 ] || printf "%s: failed; see %s\n" "$prog" "$work/log" >&2' EXIT
exec 3>>"$work/log"           # chatter of the tools goes here

# openssl must not pick up anybody's configuration
export OPENSSL_CONF=$work/openssl.cnf
cat > "$OPENSSL_CONF" <<'CNF'
[req]
distinguished_name = dn
string_mask = utf8only
[dn]
CNF
# keeps the VOMS tools from writing into the caller's home directory
export RANDFILE=$work/rnd
: > "$RANDFILE"

# -------------------------------------------------------------------- names
# Slash form, the way grid software prints distinguished names.
base=/DC=org/DC=hydragrid
ca_dn="$base/CN=Hydra Test CA"
bad_ca_dn="/DC=org/DC=elsewhere/CN=Unknown CA"
voms_host=voms.hydragrid.example      # server of VO myvo
lab_host=voms.lab.hydragrid.example   # server of VO labvo, a second trusted VO
user_dn() { printf '%s/O=People/CN=%s' "$base" "$1"; }
host_dn() { printf '%s/OU=Hosts/CN=%s' "$base" "$1"; }
host_names="keystore1 keystore2 keystore3 keystore4 keystore5 se"
user_names="alice bob carol dave admin"

# ------------------------------------------------------------------ helpers
if [ "$keytype" = rsa ]; then
  key_usage=digitalSignature,keyEncipherment
else
  key_usage=digitalSignature
fi

new_key() {                   # new_key FILE [TYPE]
  if [ "${2:-$keytype}" = rsa ]; then
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1" 2>&3
  else
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
            -pkeyopt ec_param_enc:named_curve -out "$1" 2>&3
  fi
}

new_keys() {                  # new_keys FILE... : several at a time, as RSA takes its time
  local running=0 f
  for f in "$@"; do
    mkdir -p "${f%/*}"
    new_key "$f" &
    running=$((running + 1))
    [ $((running % 4)) -ne 0 ] || wait
  done
  wait
}

new_ca() {                    # new_ca DIR DN : self-signed CA with its bookkeeping files
  mkdir -p "$1"
  new_key "$1/ca.key" rsa
  openssl req -new -x509 -key "$1/ca.key" -sha256 -days $((days + 1)) -subj "$2" \
    -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign \
    -addext subjectKeyIdentifier=hash \
    -out "$1/ca.pem" 2>&3
  : > "$1/index.txt"          # the list of revoked certificates, for "openssl ca"
  echo 1000 > "$1/crlnumber"
  echo 1001 > "$1/serial"
}

issue() {                     # issue CADIR DN KEYFILE CERTFILE EXTENSIONS...
  local ca=$1 dn=$2 key=$3 crt=$4; shift 4
  [ -s "$key" ] || new_key "$key"
  { printf '%s\n' basicConstraints=critical,CA:FALSE "keyUsage=critical,$key_usage" \
      subjectKeyIdentifier=hash authorityKeyIdentifier=keyid; printf '%s\n' "$@"
  } > "$work/ext.cnf"
  openssl req -new -key "$key" -subj "$dn" -out "$work/req.pem" 2>&3
  openssl x509 -req -in "$work/req.pem" -CA "$ca/ca.pem" -CAkey "$ca/ca.key" \
    -CAserial "$ca/serial" -sha256 -days "$days" -extfile "$work/ext.cnf" -out "$crt" 2>&3
}

write_crl() {                 # write_crl CADIR OUTFILE
  cat > "$work/ca.cnf" <<CNF
[ca]
default_ca = this
[this]
database = $1/index.txt
crlnumber = $1/crlnumber
default_md = sha256
default_crl_days = $days
crl_extensions = crl_ext
[crl_ext]
authorityKeyIdentifier = keyid
CNF
  openssl ca -config "$work/ca.cnf" -gencrl -cert "$1/ca.pem" -keyfile "$1/ca.key" -out "$2" 2>&3
}

revoke() {                    # revoke CADIR CERT (write_crl must have run once before)
  openssl ca -config "$work/ca.cnf" -revoke "$2" -crl_reason keyCompromise \
    -cert "$1/ca.pem" -keyfile "$1/ca.key" 2>&3
}

# new_proxy NAME ISSUER_CHAIN ISSUER_KEY ISSUER_DN POLICY
#   An RFC 3820 proxy without AC, made by openssl alone.  ISSUER_CHAIN is a PEM
#   file whose first certificate is the issuer and whose others follow in order;
#   ISSUER_KEY holds the issuer's key.  POLICY is an OpenSSL proxyCertInfo
#   "language" (a name or an OID).  Result: proxies/NAME.pem, in the customary
#   order proxy certificate, proxy key, rest of the chain (no CA certificate).
#   The new subject is printed on standard output.
new_proxy() {
  local name=$1 chain=$2 ikey=$3 idn=$4 policy=$5 t=$work/proxy-$1 serial
  # a random positive 31-bit number serves as serial and as the additional CN
  serial=$(( 0x$(openssl rand -hex 4) & 0x7fffffff | 1 ))
  [ -s "$t.key" ] || new_key "$t.key"
  printf '%s\n' "keyUsage=critical,$key_usage" \
    "proxyCertInfo=critical,language:$policy" > "$t.ext"
  openssl req -new -key "$t.key" -subj "$idn/CN=$serial" -out "$t.req" 2>&3
  # minutes are not to be had from "x509 -days": round the hours up to days
  openssl x509 -req -in "$t.req" -CA "$chain" -CAkey "$ikey" -set_serial "$serial" \
    -sha256 -days $(( (hours + 23) / 24 )) -extfile "$t.ext" -out "$t.crt" 2>&3
  write_pem "$name" "$t.crt" "$t.key" "$chain"
  printf '%s/CN=%s\n' "$idn" "$serial"
}

# certificates of a PEM file, without keys and without comments
certs_of() { sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' "$1"; }

write_pem() {                 # write_pem NAME CERT KEY [CHAIN] -> proxies/NAME.pem, mode 0600
  { certs_of "$2"; cat "$3"; [ $# -lt 4 ] || certs_of "$4"; } > "$out/proxies/$1.pem"
  chmod 600 "$out/proxies/$1.pem"
}

# voms_proxy NAME USER VO HOST[:PORT] FQAN...
#   An RFC 3820 proxy of USER with an AC of VO that grants the FQANs.
voms_proxy() {
  local name=$1 user=$2 vo=$3 uri=$4 fq=() f; shift 4
  for f in "$@"; do fq+=(-fqan "$f"); done
  rm -f "$out/proxies/$name.pem"
  HOME=$work voms-proxy-fake -rfc -quiet -bits 2048 \
    -cert "$out/users/$user/usercert.pem" -key "$out/users/$user/userkey.pem" \
    -certdir "$out/certificates" -hours "$hours" -vomslife "$hours" \
    -voms "$vo" -uri "$uri" \
    -hostcert "$out/voms/$vo/hostcert.pem" -hostkey "$out/voms/$vo/hostkey.pem" \
    "${fq[@]}" -out "$out/proxies/$name.pem" >&3 2>&3 3>&- ||
    die 1 "voms-proxy-fake failed for $name; see $work/log"
  # the tool reports success even when it left the AC out: look for the extension
  openssl x509 -in "$out/proxies/$name.pem" -noout -text 2>&3 |
    grep -qF 1.3.6.1.4.1.8005.100.100.5 || die 1 "proxy $name came out without an AC"
  chmod 600 "$out/proxies/$name.pem"
}

subject_of() { openssl x509 -in "$1" -noout -subject -nameopt compat | sed 's/^subject= *//'; }

# ------------------------------------------------- authorities, users, hosts
make_fabric() {
  mkdir -p "$out"/ca "$out"/certificates "$out"/hosts "$out"/users \
           "$out"/voms "$out"/vomsdir "$out"/proxies

  local keys=() n
  for n in $user_names mallory; do keys+=("$out/users/$n/userkey.pem"); done
  for n in $host_names;         do keys+=("$out/hosts/$n/hostkey.pem"); done
  new_keys "${keys[@]}"

  new_ca "$out/ca/trusted"   "$ca_dn"
  new_ca "$out/ca/untrusted" "$bad_ca_dn"    # never enters certificates/

  # --- end entities
  for n in $user_names; do
    mkdir -p "$out/users/$n"
    issue "$out/ca/trusted" "$(user_dn "$n")" "$out/users/$n/userkey.pem" "$out/users/$n/usercert.pem" \
      extendedKeyUsage=clientAuth
  done
  mkdir -p "$out/users/mallory"
  issue "$out/ca/untrusted" "/DC=org/DC=elsewhere/CN=mallory" \
    "$out/users/mallory/userkey.pem" "$out/users/mallory/usercert.pem" extendedKeyUsage=clientAuth

  for n in $host_names; do
    mkdir -p "$out/hosts/$n"
    issue "$out/ca/trusted" "$(host_dn "$n.hydragrid.example")" \
      "$out/hosts/$n/hostkey.pem" "$out/hosts/$n/hostcert.pem" \
      extendedKeyUsage=serverAuth,clientAuth \
      "subjectAltName=DNS:localhost,DNS:$n.hydragrid.example,IP:127.0.0.1,IP:::1"
  done

  # --- VOMS servers: one directory per VO, and the LSC file that vouches for it.
  # An LSC file is the subject DN of the AC signer followed by its issuer's DN(s).
  local vo host
  for vo in myvo labvo; do
    [ "$vo" = myvo ] && host=$voms_host || host=$lab_host
    mkdir -p "$out/voms/$vo" "$out/vomsdir/$vo"
    new_key "$out/voms/$vo/hostkey.pem" rsa
    issue "$out/ca/trusted" "$(host_dn "$host")" "$out/voms/$vo/hostkey.pem" "$out/voms/$vo/hostcert.pem" \
      extendedKeyUsage=serverAuth,clientAuth "subjectAltName=DNS:$host"
    printf '%s\n%s\n' "$(host_dn "$host")" "$ca_dn" > "$out/vomsdir/$vo/$host.lsc"
  done
  # a "vomses" file, so that clients which insist on one find it
  printf '"%s" "%s" "%s" "%s" "%s"\n' \
    myvo  "$voms_host" 15000 "$(host_dn "$voms_host")" myvo \
    labvo "$lab_host"  15001 "$(host_dn "$lab_host")"  labvo > "$out/vomses"

  # --- dave is revoked
  write_crl "$out/ca/trusted" "$work/crl0.pem"
  revoke    "$out/ca/trusted" "$out/users/dave/usercert.pem"
  write_crl "$out/ca/trusted" "$out/ca/trusted/crl.pem"
  write_crl "$out/ca/untrusted" "$out/ca/untrusted/crl.pem"

  # --- the trust anchor directory.  Real distributions keep readable names and
  # link both the current (SHA-1) and the pre-1.0 (MD5) OpenSSL subject hash to them.
  local c=$out/certificates h
  cp "$out/ca/trusted/ca.pem"  "$c/HydraTestCA.pem"
  cp "$out/ca/trusted/crl.pem" "$c/HydraTestCA.crl"
  cat > "$c/HydraTestCA.signing_policy" <<POLICY
# which subjects this CA may certify (Globus EACL form)
access_id_CA      X509         '$ca_dn'
pos_rights        globus        CA:sign
cond_subjects     globus       '"$base/*"'
POLICY
  cat > "$c/HydraTestCA.namespaces" <<POLICY
# the same rule in the EUGridPMA namespaces form
TO Issuer "$ca_dn" \\
  PERMIT Subject "$base/.*"
POLICY
  for h in $(openssl x509 -in "$c/HydraTestCA.pem" -noout -subject_hash) \
           $(openssl x509 -in "$c/HydraTestCA.pem" -noout -subject_hash_old 2>&3); do
    ln -sf HydraTestCA.pem            "$c/$h.0"
    ln -sf HydraTestCA.crl            "$c/$h.r0"
    ln -sf HydraTestCA.signing_policy "$c/$h.signing_policy"
    ln -sf HydraTestCA.namespaces     "$c/$h.namespaces"
  done

  { echo "# subject names in slash form: kind, name, DN"
    printf 'ca\ttrusted\t%s\nca\tuntrusted\t%s\n' "$ca_dn" "$bad_ca_dn"
    for n in $user_names; do printf 'user\t%s\t%s\n' "$n" "$(user_dn "$n")"; done
    printf 'user\tmallory\t%s\n' /DC=org/DC=elsewhere/CN=mallory
    for n in $host_names; do printf 'host\t%s\t%s\n' "$n" "$(host_dn "$n.hydragrid.example")"; done
    printf 'voms\tmyvo\t%s\nvoms\tlabvo\t%s\n' "$(host_dn "$voms_host")" "$(host_dn "$lab_host")"
  } > "$out/names.txt"
}

# ------------------------------------------------------------- credentials
make_proxies() {
  mkdir -p "$out/proxies"
  rm -f "$out"/proxies/*.pem
  local u d keys=("$work/proxy-alice-limited.key" "$work/proxy-alice-plain-delegated.key"
                  "$work/proxy-alice-delegated.key")
  for u in $user_names mallory; do keys+=("$work/proxy-$u-plain.key"); done
  new_keys "${keys[@]}"

  for u in $user_names mallory; do
    d=$out/users/$u
    write_pem "$u-eec" "$d/usercert.pem" "$d/userkey.pem"          # no proxy at all
    new_proxy "$u-plain" "$d/usercert.pem" "$d/userkey.pem" \
      "$(subject_of "$d/usercert.pem")" id-ppl-inheritAll >/dev/null
  done
  # limited proxy: policy language 1.3.6.1.4.1.3536.1.1.1.9
  new_proxy alice-limited "$out/users/alice/usercert.pem" "$out/users/alice/userkey.pem" \
    "$(user_dn alice)" 1.3.6.1.4.1.3536.1.1.1.9 >/dev/null
  new_proxy alice-plain-delegated "$out/proxies/alice-plain.pem" "$out/proxies/alice-plain.pem" \
    "$(subject_of "$out/proxies/alice-plain.pem")" id-ppl-inheritAll >/dev/null

  [ "$voms" = 1 ] || return 0
  # The real server lists what the user asked for; "Role=NULL/Capability=NULL"
  # tails are left out here.
  local m=$voms_host:15000 l=$lab_host:15001 jobs=() j
  voms_proxy alice           alice myvo  "$m" /myvo /myvo/physicians /myvo/physicians/Role=radiologist & jobs+=($!)
  voms_proxy alice-physician alice myvo  "$m" /myvo /myvo/physicians & jobs+=($!)
  voms_proxy bob             bob   myvo  "$m" /myvo /myvo/researchers & jobs+=($!)
  voms_proxy bob-labvo       bob   labvo "$l" /labvo /labvo/physicians & jobs+=($!)
  voms_proxy dave            dave  myvo  "$m" /myvo /myvo/physicians & jobs+=($!)
  voms_proxy admin           admin myvo  "$m" /myvo /myvo/Role=hydra-admin & jobs+=($!)
  # each runs in its own subshell: the first failure ends the script
  for j in "${jobs[@]}"; do wait "$j" || exit 1; done
  # second level: the AC stays where it is, one level below the new leaf
  new_proxy alice-delegated "$out/proxies/alice.pem" "$out/proxies/alice.pem" \
    "$(subject_of "$out/proxies/alice.pem")" id-ppl-inheritAll >/dev/null
}

[ "$renew" = 1 ] || make_fabric
make_proxies

# ------------------------------------------------------------ self-check, tidy
# -crl_check_all, because -crl_check looks at the leaf alone, and a leaf that is a
# proxy is never on a CRL: the revoked user behind it would go unnoticed.
verify() {                    # verify NAME : the chain must hold against certificates/
  openssl verify -allow_proxy_certs -crl_check_all -purpose sslclient -auth_level 2 -CApath "$out/certificates" \
    -untrusted "$out/proxies/$1.pem" "$out/proxies/$1.pem" >&3 2>&3
}
for p in "$out"/proxies/*.pem; do
  p=${p##*/}; p=${p%.pem}
  case $p in
    dave*|mallory*) ! verify "$p" || die 1 "self-check: $p verifies but must not" ;;
    *)                verify "$p" || die 1 "self-check: $p does not verify" ;;
  esac
done

# public parts readable by every test process, keys and proxies by the owner only
chmod 755 "$out"
find "$out/certificates" "$out/vomsdir" "$out/hosts" "$out/users" "$out/voms" -type d -exec chmod 755 {} +
find "$out/certificates" "$out/vomsdir" -type f -exec chmod 644 {} +
find "$out/hosts" "$out/users" "$out/voms" -name '*cert.pem' -exec chmod 644 {} +
find "$out/hosts" "$out/users" "$out/voms" -name '*key.pem' -exec chmod 600 {} +
chmod 755 "$out/proxies" "$out/ca" "$out/ca/trusted" "$out/ca/untrusted"
chmod 644 "$out"/ca/*/ca.pem "$out"/ca/*/crl.pem "$out/names.txt" "$out/vomses"
exec 3>&-
rm -rf "$work"
say "$prog: test grid ($keytype) ready in $out"
