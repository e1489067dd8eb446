@echo off
rem Installs sdsetup for this user on Windows, without administrator rights. A double click does.
rem
rem     install.cmd                     from the clone or release that this file lies in, else from PyPI
rem     install.cmd --offline BUNDLE    from a bundle (sdsetup install --bundle FOLDER), without a network
rem     install.cmd --command-only      the command alone, without converting and drawing
rem
rem What else is given goes on to `sdsetup install`. It needs no PowerShell, so no execution policy stops it.
setlocal EnableExtensions DisableDelayedExpansion
set "PYTHONHOME="
set "PYTHONPATH="
set "PIP_USER="
set "PIP_TARGET="
set "PIP_PREFIX="
if not defined LOCALAPPDATA set "LOCALAPPDATA=%USERPROFILE%\AppData\Local"
set "DATA=%LOCALAPPDATA%\sdsetup"
set "ENVIRONMENT=%DATA%\venv"
set "PYTHON=%ENVIRONMENT%\Scripts\python.exe"
set "STATUS=1"

rem A double click, which gives no arguments, leaves the window only until the command ends.
set "PAUSE_AT_END="
if not "%~1"=="" goto is_typed
echo %CMDCMDLINE% | find /i "%~0" >nul && set "PAUSE_AT_END=1"
:is_typed

set "OFFLINE="
set "COMMAND_ONLY="
set "PREVIOUS="
for %%A in (%*) do call :look %%A

if exist "%PYTHON%" "%PYTHON%" -c "import pip" >nul 2>&1 && goto have_environment

set "BASE="
if defined SDSETUP_PYTHON call :try "%SDSETUP_PYTHON%"
for %%V in (3.12 3.13 3.11) do call :try py -%%V
call :try python
call :try python3
if defined BASE goto make_environment
where uv >nul 2>&1 && goto make_with_uv
echo error: Python 3.11, 3.12 or 3.13 (64 bits) is needed, and none was found. 1>&2
where winget >nul 2>&1 && echo next: winget install -e --id Python.Python.3.12 --scope user 1>&2
where winget >nul 2>&1 || echo next: install Python 3.12 from https://www.python.org/downloads/windows/ ("Install Now", no administrator needed). 1>&2
echo Then open a new window and run this file again. 1>&2
goto end

:make_environment
echo Making an environment in %ENVIRONMENT% 1>&2
%BASE% -m venv --clear "%ENVIRONMENT%"
if errorlevel 1 goto no_environment
goto have_environment

:make_with_uv
echo Making an environment in %ENVIRONMENT% with uv 1>&2
uv venv --seed --clear --python 3.12 "%ENVIRONMENT%"
if errorlevel 1 goto no_environment

:have_environment
set "FROM=sdsetup"
set "LINKS="
set "BUNDLE="
if exist "%~dp0sdsetup\bootstrap\install.py" set "FROM=%~dp0."
if defined SDSETUP_FROM set "FROM=%SDSETUP_FROM%"
if not defined OFFLINE goto install_command
if not exist "%OFFLINE%\wheels" (
  echo error: %OFFLINE% is no bundle: it has no folder wheels. 1>&2
  echo next: make one on a machine with a network: sdsetup install --bundle FOLDER 1>&2
  goto end
)
rem An option, no variable: pip takes spaces in PIP_FIND_LINKS for the ends of paths.
set LINKS=--no-index --find-links "%OFFLINE%\wheels"
rem The last one counts, also from another folder. A backslash before the closing quote would escape it.
set BUNDLE=--offline "%OFFLINE%\."
set "FROM=sdsetup"

:install_command
echo Installing the command from %FROM% 1>&2
"%PYTHON%" -m pip --disable-pip-version-check --no-input install --quiet --upgrade %LINKS% "%FROM%"
if errorlevel 1 (
  echo error: pip could not install it, for the reason above. 1>&2
  echo next: without a network use a bundle, --offline BUNDLE; behind a proxy set HTTPS_PROXY; then run this again. 1>&2
  goto end
)
"%PYTHON%" -I -m sdsetup.bootstrap.on_path
if defined COMMAND_ONLY set "STATUS=0"
if defined COMMAND_ONLY goto end

rem Packages and images go beside this window's folder; OneDrive would send gigabytes away.
if defined PAUSE_AT_END goto own_folder
if not defined OneDrive goto draw
echo "%CD%" | find /i "%OneDrive%" >nul || goto draw
:own_folder
if not exist "%USERPROFILE%\sdsetup" mkdir "%USERPROFILE%\sdsetup"
cd /d "%USERPROFILE%\sdsetup"
echo Packages and images go to %USERPROFILE%\sdsetup 1>&2
:draw
"%ENVIRONMENT%\Scripts\sdsetup.exe" install %* %BUNDLE%
set "STATUS=%ERRORLEVEL%"
goto end

:no_environment
echo error: the environment could not be made, for the reason above. 1>&2
echo next: see that %DATA% can be written and has 1 GB free, then run this again. 1>&2

:end
if defined PAUSE_AT_END pause
exit /b %STATUS%

:look
if "%PREVIOUS%"=="--offline" set "OFFLINE=%~f1"
if "%~1"=="--command-only" set "COMMAND_ONLY=1"
set "PREVIOUS=%~1"
goto :eof

:try
rem The Store's stand-in for Python prints a hint and fails, so it is passed over like any other.
if defined BASE goto :eof
%* -c "import struct, sys, venv; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and struct.calcsize('P') == 8))" >nul 2>&1
if not errorlevel 1 set "BASE=%*"
goto :eof
