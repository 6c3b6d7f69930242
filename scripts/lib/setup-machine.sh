# shellcheck shell=bash
# The machine: packages, kernel interfaces, a Docker engine that answers. Sourced by scripts/setup.

readonly socket=/var/run/docker.sock

# The default engine and no other: the images must land where the server will look for them,
# whatever `docker context` says. Asked through Node, so that neither curl nor the docker client is needed to find out.
engine_answers() {
  [ -S "$socket" ] && node -e '
    require("node:http").get({ socketPath: process.argv[1], path: "/_ping", timeout: 3000 }, (r) => process.exit(r.statusCode === 200 ? 0 : 1))
      .on("error", () => process.exit(1)).on("timeout", () => process.exit(1));' "$socket"
}

# process_is <pid file> <command name>: a pid may have been given to somebody else since the file was written, and one that
# was killed may still wait for its parent to notice.
process_is() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] &&
    ! grep -q '^State:[[:space:]]*[ZX]' "/proc/$pid/status" 2>/dev/null
}

require_machine() {
  [ "$(id -u)" = 0 ] || die 'run it as root (sudo scripts/setup): it installs packages, mounts FUSE and starts Docker; "--only npm" and "--only build" need no root'
  [ -e /etc/debian_version ] && have apt-get ||
    die 'this is not a Debian-like system; install Docker, jq and python3 yourself, then: scripts/setup --only images --only npm --only build'
}

setup_packages() {
  local need=()
  # The engine may run elsewhere (a mounted socket), so one is installed only when nobody answers.
  if ! engine_answers; then
    have dockerd || need+=(docker.io)
    have iptables || need+=(iptables) # docker.io only "recommends" it, but dockerd does not start without
  fi
  have docker || need+=(docker-client)
  [ -n "${CRONIUM_BASE_IMAGE:-}" ] || have mmdebstrap || need+=(mmdebstrap)
  have jq || need+=(jq)           # the helper tests run the shell helpers on this machine
  have python3 || need+=(python3) # and the Python ones
  have strace || need+=(strace)   # kills them between two system calls
  [ ${#need[@]} = 0 ] && { note 'packages: all here'; return; }
  step apt "installing ${need[*]}" apt_install "${need[@]}"
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  # An unreachable third-party source must not stop us: the lists at hand may do.
  apt-get "${options[@]}" update || echo 'apt-get update failed, going on'
  # Known only now: Debian 13 has the docker command in a package of its own, which docker.io merely recommends.
  local package=docker.io
  ! apt-cache show docker-cli >/dev/null 2>&1 || package=docker-cli
  set -- "${@/#docker-client/$package}"
  # Without the recommended packages: they are 17 more, among them one that restarts services.
  apt-get "${options[@]}" install -y --no-install-recommends "$@"
}

setup_kernel() {
  if [ ! -c /dev/fuse ]; then
    say 'creating /dev/fuse'
    mknod -m 0666 /dev/fuse c 10 229 || die 'cannot create /dev/fuse; inside a container, start it with --device /dev/fuse'
  fi
  # Its "abort" files are the only cure for a hung mount.
  if [ -d /sys/fs/fuse/connections ] && ! mountpoint -q /sys/fs/fuse/connections; then
    say 'mounting fusectl'
    mount -t fusectl none /sys/fs/fuse/connections || say 'no fusectl; a hung mount cannot be aborted on this machine'
  fi
  # Neither cgroup v2 nor v1: what Docker needs of what an init system would have mounted, and what processes are in
  # already. Mounting others would leave hierarchies behind that containerd cannot find, and it then misses OOM kills.
  if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && ! mountpoint -q /sys/fs/cgroup/memory; then
    say 'mounting the cgroup v1 controllers'
    mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup || die 'cannot mount /sys/fs/cgroup; Docker needs it'
    local controller
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids $(awk -F: '$2 != "" { gsub(",", "\n", $2); print $2 }' /proc/self/cgroup | grep -v =); do
      grep -q "^$controller[[:space:]].*1$" /proc/cgroups || continue
      mkdir -p "/sys/fs/cgroup/$controller"
      mountpoint -q "/sys/fs/cgroup/$controller" ||
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
    done
  fi
}

setup_engine() {
  engine_answers && { note 'Docker: answers'; return; }
  local log="$logs/dockerd.log" began=$EPOCHREALTIME started=
  if process_is /var/run/docker.pid dockerd; then
    say 'dockerd runs but does not answer yet; waiting for it'
  elif [ -d /run/systemd/system ]; then
    say 'starting Docker through systemd'
    systemctl start docker || die 'systemd could not start Docker; look at: journalctl -u docker'
  else
    say "starting dockerd (log: $log)"
    # Left by a killed daemon or an earlier boot. With docker.pid there dockerd refuses to start; with a
    # containerd.pid that now belongs to another process it waits for that one.
    rm -f /var/run/docker.pid
    process_is /var/run/docker/containerd/containerd.pid containerd || rm -f /var/run/docker/containerd/containerd.pid
    start_dockerd "$log" &
    started=$!
  fi
  until engine_answers; do
    if [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null; then
      tail -n 20 "$log" >&2
      die "dockerd ended at once; its last words are above, all of them in $log"
    fi
    # 60 s: ready in under 1 s here, but a first start on a slow disk loads kernel modules and writes iptables.
    if (($(now_us) - ${began//[!0-9]/} > 60000000)); then
      [ -z "$started" ] || tail -n 20 "$log" >&2
      die "no Docker engine answers on $socket after 60 s${started:+; the end of $log is above}"
    fi
    sleep 0.1
  done
  say "Docker: answers after $(since "$began") s"
}

start_dockerd() { # <log>, in a subshell
  local fd
  # Our lock, and whatever our caller had open: the daemon would hold them for ever.
  for fd in /proc/"$BASHPID"/fd/*; do
    fd=${fd##*/}
    if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
  done
  # setsid: outlive this terminal and process group.
  # shellcheck disable=SC2086 # words on purpose
  exec setsid dockerd --log-level=warn ${CRONIUM_DOCKERD_ARGS:-} >"$1" 2>&1 </dev/null
}
