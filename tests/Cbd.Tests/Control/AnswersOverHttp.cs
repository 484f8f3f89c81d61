using System.Text;
using Cbd.Control.Api.Client;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class AnswersOverHttp
{
    private static (int Status, string Body) Parse(string answer)
    {
        var (status, body) = HttpExchange.Parse(Encoding.ASCII.GetBytes(answer));
        return (status, Encoding.ASCII.GetString(body));
    }

    [Fact]
    public void A_body_has_a_length_or_chunks_or_goes_to_the_end()
    {
        Assert.Equal((200, "hello"), Parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
        Assert.Equal((200, "hello world"), Parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
        Assert.Equal((404, "hello"), Parse("HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\nhello"));
        Assert.Equal((204, ""), Parse("HTTP/1.1 204 No Content\r\n\r\n"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("HTTP/1.1 200 OK\r\n")]
    [InlineData("SSH-2.0-x\r\n\r\n")]
    [InlineData("HTTP/1.1 abc OK\r\n\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello")]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\nhello\r\n0\r\n\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nhello\r\n0\r\n\r\n")]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n")]
    public void An_answer_that_is_cut_off_or_no_HTTP_is_an_error(string answer) =>
        Assert.Equal(CbdErrorKind.Corrupt, Assert.Throws<CbdException>(() => Parse(answer)).Kind);

    [Fact]
    public void No_bytes_do_more_than_fail()
    {
        string[] heads =
        [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        ];
        Gen.Select(Gen.Int[0, heads.Length - 1], Gen.Byte.Array[0, 64]).Sample((index, tail) =>
        {
            var head = heads[index];
            try
            {
                HttpExchange.Parse([.. Encoding.ASCII.GetBytes(head), .. tail]);
            }
            catch (CbdException e) when (e.Kind == CbdErrorKind.Corrupt)
            {
                // The only way it may fail.
            }
        });
    }
}
