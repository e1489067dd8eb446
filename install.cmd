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

rem Folders may have & or brackets in their names: what is told goes through :tell, all else is quoted.

rem A double click, which gives no arguments, leaves the window only until the command ends.
set "PAUSE_AT_END="
if not "%~1"=="" goto is_typed
setlocal EnableDelayedExpansion
set "CLICKED="
set "STARTED=!CMDCMDLINE!"
if defined STARTED if /i not "!STARTED:%~nx0=!"=="!STARTED!" set "CLICKED=1"
endlocal & set "PAUSE_AT_END=%CLICKED%"
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
set "SAY=Making an environment in %ENVIRONMENT%"
call :tell
%BASE% -m venv --clear "%ENVIRONMENT%"
if errorlevel 1 goto no_environment
goto have_environment

:make_with_uv
set "SAY=Making an environment in %ENVIRONMENT% with uv"
call :tell
uv venv --seed --clear --python 3.12 "%ENVIRONMENT%"
if errorlevel 1 goto no_environment

:have_environment
set "FROM=sdsetup"
set "LINKS="
set "BUNDLE="
if exist "%~dp0sdsetup\bootstrap\install.py" set "FROM=%~dp0."
if defined SDSETUP_FROM set "FROM=%SDSETUP_FROM%"
if not defined OFFLINE goto install_command
if not exist "%OFFLINE%\wheels" goto no_bundle
rem An option, no variable: pip takes spaces in PIP_FIND_LINKS for the ends of paths.
set LINKS=--no-index --find-links "%OFFLINE%\wheels"
rem The last one counts, also from another folder. A backslash before the closing quote would escape it.
set BUNDLE=--offline "%OFFLINE%\."
set "FROM=sdsetup"

:install_command
set "SAY=Installing the command from %FROM%; this takes up to a minute"
call :tell
rem What it needs, `sdsetup install` brings in the versions that were tested together.
set "WITHOUT=--no-deps"
if defined COMMAND_ONLY set "WITHOUT="
rem What pip.ini may say besides; pip undoes it so for its own builds.
set "HERE=--no-user --target="
"%PYTHON%" -m pip --disable-pip-version-check --no-input install --quiet --no-compile --upgrade %HERE% %WITHOUT% %LINKS% "%FROM%"
if errorlevel 1 (
  echo error: pip could not install it, for the reason above. 1>&2
  echo next: without a network use a bundle, --offline BUNDLE; behind a proxy set HTTPS_PROXY; then run this again. 1>&2
  goto end
)
"%PYTHON%" -I -m sdsetup.bootstrap.on_path
if defined COMMAND_ONLY set "STATUS=0"
if defined COMMAND_ONLY goto end

rem OneDrive would send gigabytes away, and a double click says no folder. Paths that were typed stay as they are.
set "INTO="
if defined PAUSE_AT_END goto own_folder
if not defined OneDrive goto draw
setlocal EnableDelayedExpansion
set "HERE=!CD!\"
set "SYNCED="
if /i not "!HERE:%OneDrive%\=!"=="!HERE!" set "SYNCED=1"
endlocal & set "SYNCED=%SYNCED%"
if not defined SYNCED goto draw
:own_folder
set INTO=--folder "%USERPROFILE%\sdsetup"
set "SAY=Packages and images go to %USERPROFILE%\sdsetup"
call :tell
:draw
"%ENVIRONMENT%\Scripts\sdsetup.exe" install %INTO% %* %BUNDLE%
set "STATUS=%ERRORLEVEL%"
goto end

:no_bundle
set "SAY=error: %OFFLINE% is no bundle: it has no folder wheels."
call :tell
echo next: make one on a machine with a network: sdsetup install --bundle FOLDER 1>&2
goto end

:no_environment
echo error: the environment could not be made, for the reason above. 1>&2
set "SAY=next: see that %DATA% can be written and has 1 GB free, then run this again."
call :tell

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
if not errorlevel 1 set BASE=%*
goto :eof

:tell
setlocal EnableDelayedExpansion
>&2 echo !SAY!
endlocal
goto :eof
