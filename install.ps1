<#
.SYNOPSIS
Installs sdsetup for this user on Windows, without administrator rights.

.DESCRIPTION
    powershell -ExecutionPolicy Bypass -File install.ps1

Does what install.cmd does, which needs no execution policy. What is given goes on to `sdsetup install`;
--command-only stops before that.
#>
$ErrorActionPreference = 'Stop'

function Exit-WithHint([string] $Message, [string[]] $Next) {
    [Console]::Error.WriteLine("error: $Message")
    foreach ($line in $Next) { [Console]::Error.WriteLine("next: $line") }
    exit 1
}

function Test-Python([string[]] $Command) {
    if (-not (Get-Command $Command[0] -ErrorAction SilentlyContinue)) { return $false }
    $check = "import struct, sys, venv; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and struct.calcsize('P') == 8))"
    $rest = @($Command | Select-Object -Skip 1)
    # The Store's stand-in for Python prints a hint and fails, so it is passed over like any other.
    try { & $Command[0] @rest -c $check 2>$null | Out-Null } catch { return $false }
    return $LASTEXITCODE -eq 0
}

foreach ($name in 'PYTHONHOME', 'PYTHONPATH', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX') {
    Remove-Item "Env:$name" -ErrorAction SilentlyContinue
}
$local = if ($env:LOCALAPPDATA) { $env:LOCALAPPDATA } else { Join-Path $env:USERPROFILE 'AppData\Local' }
$environment = Join-Path $local 'sdsetup\venv'
$python = Join-Path $environment 'Scripts\python.exe'
$given = @($args)

if (-not ((Test-Path -LiteralPath $python) -and (Test-Python @($python)))) {
    $found = $null
    foreach ($candidate in @($env:SDSETUP_PYTHON), @('py', '-3.12'), @('py', '-3.13'), @('py', '-3.11'), @('python'), @('python3')) {
        if ($candidate[0] -and (Test-Python $candidate)) { $found = $candidate; break }
    }
    if ($found) {
        [Console]::Error.WriteLine("Making an environment in $environment")
        $rest = @($found | Select-Object -Skip 1)
        & $found[0] @rest -m venv --clear $environment
    }
    elseif (Get-Command uv -ErrorAction SilentlyContinue) {
        [Console]::Error.WriteLine("Making an environment in $environment with uv")
        uv venv --seed --clear --python 3.12 $environment
    }
    elseif (Get-Command winget -ErrorAction SilentlyContinue) {
        Exit-WithHint 'Python 3.11, 3.12 or 3.13 (64 bits) is needed, and none was found.' @(
            'winget install -e --id Python.Python.3.12 --scope user',
            'open a new window and run this again.')
    }
    else {
        Exit-WithHint 'Python 3.11, 3.12 or 3.13 (64 bits) is needed, and none was found.' @(
            'install Python 3.12 from https://www.python.org/downloads/windows/ ("Install Now", no administrator needed).',
            'open a new window and run this again.')
    }
    if ($LASTEXITCODE -ne 0) {
        Exit-WithHint 'the environment could not be made, for the reason above.' @(
            "see that $local\sdsetup can be written and has 1 GB free, then run this again.")
    }
}

$from = 'sdsetup'
if ($PSScriptRoot -and (Test-Path -LiteralPath (Join-Path $PSScriptRoot 'sdsetup\bootstrap\install.py'))) { $from = $PSScriptRoot }
if ($env:SDSETUP_FROM) { $from = $env:SDSETUP_FROM }
$links = @()
$bundle = $null
for ($place = 0; $place -lt $given.Count; $place++) {
    if ("$($given[$place])" -like '--offline=*') { $bundle = $given[$place].Substring(10) }
    if ($given[$place] -eq '--offline' -and $place + 1 -lt $given.Count) { $bundle = $given[$place + 1] }
}
if ($bundle) {
    $bundle = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($bundle)
    if (-not (Test-Path -LiteralPath (Join-Path $bundle 'wheels'))) {
        Exit-WithHint "$bundle is no bundle: it has no folder wheels." @(
            'make one on a machine with a network: sdsetup install --bundle FOLDER')
    }
    # An option, no variable: pip takes spaces in PIP_FIND_LINKS for the ends of paths.
    $links = @('--no-index', '--find-links', (Join-Path $bundle 'wheels'))
    # The last one counts, also from another folder. A backslash before the closing quote would escape it.
    $given += @('--offline', (Join-Path $bundle '.'))
    $from = 'sdsetup'
}
# What it needs, `sdsetup install` brings in the versions that were tested together.
$without = @('--no-deps')
if ($given -contains '--command-only') { $without = @() }
[Console]::Error.WriteLine("Installing the command from $from; this takes up to a minute")
# What pip.ini may say besides; pip undoes it so for its own builds.
$here = @('--no-user', '--target=')
& $python -m pip --disable-pip-version-check --no-input install --quiet --no-compile --upgrade @here @without @links $from
if ($LASTEXITCODE -ne 0) {
    Exit-WithHint 'pip could not install it, for the reason above.' @(
        'without a network use a bundle, --offline BUNDLE; behind a proxy set HTTPS_PROXY; then run this again.')
}
& $python -I -m sdsetup.bootstrap.on_path
if ($given -contains '--command-only') { exit 0 }

# OneDrive would send gigabytes away. Paths that were typed stay as they are.
$into = @()
if ($env:OneDrive) {
    $synced = $env:OneDrive.TrimEnd('\') + '\'
    if (((Get-Location).Path + '\').StartsWith($synced, [StringComparison]::OrdinalIgnoreCase)) {
        $own = Join-Path $env:USERPROFILE 'sdsetup'
        $into = @('--folder', $own)
        [Console]::Error.WriteLine("Packages and images go to $own")
    }
}
& (Join-Path $environment 'Scripts\sdsetup.exe') install @into @given
exit $LASTEXITCODE
