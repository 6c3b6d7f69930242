# shellcheck shell=bash
# npm dependencies and the TypeScript build, in the checkout. Sourced by scripts/setup.

setup_npm() {
  local stamp=$root/node_modules/.cronium-lock want
  # By content: a restored CI cache has old times, and a fresh checkout has new ones.
  want=$(sha256sum <"$root/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && { note 'npm: up to date'; return; }
  # Installed by hand, later than the lock was written: believe it. npm writes its hidden lock last.
  if [ -x "$root/node_modules/.bin/tsc" ] && [ ! "$root/package-lock.json" -nt "$root/node_modules/.package-lock.json" ]; then
    note 'npm: installed by hand, kept'
  else
    step npm 'npm ci' npm_ci
  fi
  echo "$want" >"$stamp"
}

# Without the 40 lines of usage that would hide the reason. --include=dev: even where NODE_ENV=production is set.
npm_ci() { npm --prefix "$root" ci --include=dev --no-audit --no-fund 2>&1 | sed '/^npm error Clean install a project/,/^npm error Run /d'; }

readonly sources=(bridge mountd server test bench)

setup_build() {
  local stamp=$root/dist/.setup
  cd "$root" || exit
  # Directories too: theirs change when a file is removed.
  if [ -e "$stamp" ] && [ -z "$(find tsconfig.json package.json package-lock.json scripts/bundle.mjs "${sources[@]}" \
    \( -type d -o -name '*.ts' -o -name '*.json' \) -newer "$stamp" -print -quit 2>/dev/null)" ]; then
    note 'build: up to date'
    return
  fi
  [ -x node_modules/.bin/tsc ] || die 'TypeScript is missing; install it with: scripts/setup --only npm'
  mkdir -p dist
  # The time before the compiler read anything, so that an edit during the build is not missed.
  touch dist/.setup-started
  step build 'compiling TypeScript' npm run -s build
  drop_orphans
  mv dist/.setup-started "$stamp"
}

# What a removed source left behind: a stale test would go on being run.
drop_orphans() {
  local built source
  while read -r built; do
    source=${built#dist/}
    [ -e "${source%.js}.ts" ] || rm -f "$built" "$built.map"
  done < <(find "${sources[@]/#/dist/}" -name '*.js' 2>/dev/null)
}
