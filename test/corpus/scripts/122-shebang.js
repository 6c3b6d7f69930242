#!/usr/bin/env node
// a #! line at the top of the script
cronium.output('ran');
