using System.Text.RegularExpressions;
using System.Xml.Linq;
using Xunit;

namespace Cbd.Tests.Architecture;

/// <summary>What holds for the projects under src: the order of references, and what only some of them may do.</summary>
public sealed partial class ProjectsTests
{
    /// <summary>A project references only those above it; the two programs, which come last, not each other.</summary>
    private static readonly string[] s_order =
        ["Cbd.Errors", "Cbd.Memory", "Cbd.Blocks", "Cbd.Protocol", "Cbd.Disks", "Cbd.Control.Api", "Cbd.Host", "Cbd", "Cbd.Exports", "Cbd.Control", "cbdd", "cbdctrl"];

    [Fact]
    public void Reference_only_projects_above_them()
    {
        foreach (string project in s_order)
        {
            int place = project is "cbdd" or "cbdctrl" ? s_order.Length - 2 : Array.IndexOf(s_order, project);
            Assert.All(References(project), reference => Assert.InRange(Array.IndexOf(s_order, reference), 0, place - 1));
        }
    }

    [Fact]
    public void Are_all_in_the_order() =>
        Assert.Equal(
            s_order.Order(StringComparer.Ordinal),
            SourceTree.Files("", ".csproj").Select(path => Path.GetFileNameWithoutExtension(path)).Order(StringComparer.Ordinal));

    /// <summary>A program that talks to a daemon needs nothing of what a daemon is made of.</summary>
    [Fact]
    public void Need_no_engine_to_talk_to_a_daemon()
    {
        Assert.Equal(["Cbd.Errors"], References("Cbd.Control.Api"));
        Assert.Empty(References("Cbd.Errors"));
    }

    [Fact]
    public void Have_unsafe_code_in_Cbd_Memory_alone()
    {
        IEnumerable<string> files = Directory.EnumerateFiles(SourceTree.Root, "*.*proj", SearchOption.AllDirectories)
            .Concat(Directory.EnumerateFiles(SourceTree.Root, "Directory.*.*"))
            .Concat(SourceTree.Files("", ".props", ".targets"));
        Assert.Equal(
            ["Cbd.Memory.csproj"],
            files.Where(path => XDocument.Load(path).Descendants("AllowUnsafeBlocks").Any(value => value.Value == "true")).Select(Path.GetFileName));
    }

    [Fact]
    public void Import_each_native_function_once()
    {
        string[] imports =
        [
            .. from path in SourceTree.Files("", ".cs")
               from Match match in NativeImport().Matches(File.ReadAllText(path))
               select $"{Path.GetFileName(path).Split('.')[0]} {match.Groups[1].Value}",
        ];
        Assert.NotEmpty(imports);
        // Two entries for one function of the shim: with and without the transition for the garbage collector.
        Assert.Equal(["NativeShim cbd_copy_crc"], imports.GroupBy(import => import).Where(group => group.Count() > 1).Select(group => group.Key));
        Assert.All(imports, import => Assert.True(import.StartsWith("LibC ", StringComparison.Ordinal) || import.StartsWith("NativeShim cbd_", StringComparison.Ordinal), import));
        Assert.Empty(SourceTree.FilesWith(OtherImport(), ""));
    }

    /// <summary>.NET's console throws where output cannot be written: ProgramOutput and LogStream are the only ways out.</summary>
    [Fact]
    public void Write_to_no_console()
    {
        Assert.Empty(SourceTree.FilesWith(UseOfConsole(), ""));
        Assert.Equal(
            ["Cbd.Control/ProgramOutput.cs", "cbdd/DaemonProgram.cs"],
            SourceTree.FilesWith(UseOfStandardStream(), "").Select(use => use[..use.IndexOf(':')]).Order(StringComparer.Ordinal));
    }

    /// <summary>Where no thread can be had, .NET throws what nobody expects: NeededThread alone starts any.</summary>
    [Fact]
    public void Start_threads_in_one_place()
    {
        Assert.Equal(["Cbd.Memory/Kernel/NeededThread.cs"], SourceTree.FilesWith(StartOfThread(), "").Select(use => use[..use.IndexOf(':')]));
        Assert.Empty(SourceTree.FilesWith(SignalOfDotNet(), ""));
    }

    /// <summary>A link in place of a file that a daemon keeps leads to somebody else's: AtomicFile and PreparedFile make files, ControlSyscalls opens them.</summary>
    [Fact]
    public void Make_files_in_one_place() =>
        Assert.Equal(
            // That of the kernel's own, in /sys.
            ["Cbd.Exports/Kernel/DeviceLink.cs", "Cbd.Host/AtomicFile.cs", "Cbd.Host/PreparedFile.cs"],
            SourceTree.FilesWith(FileThatIsMade(), "").Select(use => use[..use.IndexOf(':')]).Distinct().Order(StringComparer.Ordinal));

    /// <summary>Rights of others are on a thread for the length of one call of the shim.</summary>
    [Fact]
    public void Take_the_rights_of_others_in_one_place()
    {
        Assert.Equal(
            ["Cbd.Memory/Kernel/PathRights.cs", "Cbd.Memory/Shim/NativeShim.cs"],
            SourceTree.FilesWith(RightsOfOthers(), "").Select(use => use[..use.IndexOf(':')]).Distinct().Order(StringComparer.Ordinal));
        Assert.Empty(SourceTree.FilesWith(ChangeOfUser(), ""));
    }

    /// <summary>Queue and handler advance by polling; whoever drives them has the threads and the clocks.</summary>
    [Fact]
    public void Have_no_threads_and_no_clocks_in_the_protocol() =>
        Assert.Empty(SourceTree.FilesWith(ThreadOrClock(), "Cbd.Protocol"));

    /// <summary>Whoever drives the life cycles of the host has the threads and the clocks: the daemon, or the simulator.</summary>
    [Theory]
    [InlineData("Cbd.Host/Sessions")]
    [InlineData("Cbd.Host/Backends")]
    [InlineData("Cbd.Host/Devices")]
    [InlineData("Cbd.Host/Wanted")]
    public void Have_no_threads_and_no_clocks_in_the_life_cycles(string folder) =>
        Assert.Empty(SourceTree.FilesWith(ThreadOrClock(), folder));

    /// <summary>The simulator drives the shipped code: it has no life cycles of its own, and changes no claim.</summary>
    [Fact]
    public void Are_what_the_simulator_runs()
    {
        string[] files = [.. Directory.EnumerateFiles(Path.Combine(SourceTree.Root, "tests", "Cbd.Simulation"), "*.cs", SearchOption.AllDirectories)];
        Assert.NotEmpty(files);
        Assert.All(files, path => Assert.DoesNotMatch(LifeCycleOrClaim(), SourceTree.Code(path)));
        Assert.Contains(files, path => SourceTree.Code(path).Contains("new Membership<", StringComparison.Ordinal));
        Assert.Contains(files, path => SourceTree.Code(path).Contains("new DeviceLife<", StringComparison.Ordinal));
        Assert.Contains(files, path => SourceTree.Code(path).Contains("new BackendLife<", StringComparison.Ordinal));
        Assert.Contains(files, path => SourceTree.Code(path).Contains("new WantedRecord<", StringComparison.Ordinal));
    }

    /// <summary>.NET's cryptography loads OpenSSL, and ends the process where there is none; a disk needs libc alone.</summary>
    [Fact]
    public void Need_no_OpenSSL_below_the_exports() =>
        Assert.All(
            s_order.TakeWhile(project => project != "Cbd.Exports"),
            project => Assert.Empty(SourceTree.FilesWith(Cryptography(), project)));

    [Fact]
    public void Have_files_of_fewer_than_500_lines() =>
        Assert.All(
            SourceTree.Files("", ".cs", ".c", ".h", ".csproj", ".targets"),
            path => Assert.True(File.ReadLines(path).Count() < 500, $"{SourceTree.Name(path)} has {File.ReadLines(path).Count()} lines"));

    private static IEnumerable<string> References(string project) =>
        XDocument.Load(Path.Combine(SourceTree.Source, project, $"{project}.csproj"))
            .Descendants("ProjectReference")
            .Select(reference => Path.GetFileNameWithoutExtension(reference.Attribute("Include")!.Value));

    [GeneratedRegex("""LibraryImport\([^)]*EntryPoint = "(\w+)""")]
    private static partial Regex NativeImport();

    [GeneratedRegex(@"\bDllImport\b|\bLibraryImport\((?![^)]*EntryPoint)")]
    private static partial Regex OtherImport();

    [GeneratedRegex(@"\bSystem\.Security\.Cryptography\b|\bSystem\.Net\.Security\b")]
    private static partial Regex Cryptography();

    [GeneratedRegex(@"\bConsole\s*\.")]
    private static partial Regex UseOfConsole();

    [GeneratedRegex(@"\bStandardStream\.(Output|Error)\b")]
    private static partial Regex UseOfStandardStream();

    [GeneratedRegex(@"\bFile\.(WriteAll\w*|AppendAll\w*|Create|CreateText|OpenWrite|AppendText|Copy)\(|\bFileMode\.(?!Open\b)\w+|\bnew StreamWriter\(\s*[""$]")]
    private static partial Regex FileThatIsMade();

    [GeneratedRegex(@"\bCallWithRights\(")]
    private static partial Regex RightsOfOthers();

    [GeneratedRegex(@"EntryPoint = ""set(e|re|res|fs)?[ug]id""|EntryPoint = ""setgroups""")]
    private static partial Regex ChangeOfUser();

    [GeneratedRegex(@"\b\w*(?<!Needed)[tT]hread\.(Unsafe)?Start\(|\bnew Thread\([^;]*\.(Unsafe)?Start\(")]
    private static partial Regex StartOfThread();

    /// <summary>Each signal would start a thread.</summary>
    [GeneratedRegex(@"\bPosixSignalRegistration\b")]
    private static partial Regex SignalOfDotNet();

    // A state of a life cycle ends in Stage, Phase or Condition; claim words change by TrySwap.
    [GeneratedRegex(@"\benum\s+\w*(Stage|Phase|Condition|Status)\b|\bTrySwap\b")]
    private static partial Regex LifeCycleOrClaim();

    [GeneratedRegex(@"\b(Thread|ThreadPool|Task|ValueTask|Timer|PeriodicTimer|Stopwatch|DateTime|DateTimeOffset|TimeProvider|KernelClock|DoorbellSleeper|TickCount|TickCount64|async|await)\b")]
    private static partial Regex ThreadOrClock();
}
