using System.Diagnostics;
using System.Globalization;
using Cbd.Memory;
using Cbd.Memory.Fuse;

namespace Cbd.Exports.Fuse;

/// <summary>Starts <see cref="LoopProgram"/> and waits for it. Thread-safe.</summary>
internal sealed class LoopProcess(string program)
{
    /// <summary>The program that runs now, even if its file was replaced meanwhile.</summary>
    internal const string OwnProgram = "/proc/self/exe";

    private const int TimeoutMs = 30_000;

    /// <summary>A descriptor is for one child: no other may be started while it is inherited.</summary>
    private static readonly Lock s_starting = new();

    /// <summary>Returns the path of the loop device.</summary>
    internal string Configure(FuseMount mount, string file, int blockBytes, bool readOnly) => Run(
        mount, LoopProgram.ConfigureVerb, Number(mount), file, blockBytes.ToString(CultureInfo.InvariantCulture),
        readOnly ? "ro" : "rw");

    /// <summary>As <see cref="LoopDevice.UpdateSize"/>.</summary>
    internal void Resize(string device) => Run(null, LoopProgram.ResizeVerb, device);

    /// <summary>As <see cref="LoopDevice.Clear"/>.</summary>
    internal void Clear(string device, string file, bool exclusive) =>
        Run(null, LoopProgram.ClearVerb, device, file, exclusive ? "exclusive" : "any");

    private static string Number(FuseMount mount) => mount.Descriptor.Number.ToString(CultureInfo.InvariantCulture);

    private string Run(FuseMount? inherited, params string[] words)
    {
        var start = new ProcessStartInfo(program, [LoopProgram.Verb, .. words]) { RedirectStandardOutput = true, RedirectStandardInput = true };
        using Process process = Start(start, inherited);
        process.StandardInput.Close();
        Task<string> answer = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(TimeoutMs))
        {
            // It may be in the middle of a request that is not answered; it ends with that.
            process.Kill();
            throw new CbdException(CbdErrorKind.TimedOut, $"the loop device ({words[0]}) did not answer within {TimeoutMs / 1000} s");
        }

        string text = answer.GetAwaiter().GetResult().Trim();
        int code = process.ExitCode;
        if (code == 0)
            return text;
        var kind = (CbdErrorKind)(code - LoopProgram.FirstErrorCode);
        throw new CbdException(
            Enum.IsDefined(kind) ? kind : CbdErrorKind.Failed,
            text.Length > 0 ? text : $"the process for the loop device ({words[0]}) ended with exit code {code}");
    }

    private static Process Start(ProcessStartInfo start, FuseMount? inherited)
    {
        lock (s_starting)
        {
            try
            {
                inherited?.Descriptor.SetInherited(true);
                return Process.Start(start)!;
            }
            catch (System.ComponentModel.Win32Exception e)
            {
                throw new CbdException(CbdErrorKind.Failed, $"cannot start '{start.FileName}' for the loop device: {e.Message}", e);
            }
            finally
            {
                inherited?.Descriptor.SetInherited(false);
            }
        }
    }
}
